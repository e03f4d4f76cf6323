"""Joining a DDS domain as ROS 2's environment variables say."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from html import escape
from typing import Any
from weakref import WeakValueDictionary

from cyclonedds.core import DDSException
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.qos import Policy, Qos

from ropes_ros.standalone.errors import DiscoveryError

MAX_DOMAIN_ID = 232
_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
# Large datagrams make images cheap on the loopback interface; macOS sends no datagram above 9 kB.
_LOOPBACK_SIZES = (
    "" if sys.platform == "darwin" else "<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize>"
)
# Room for bursts of images, and acknowledgements within milliseconds: by default a writer that waits for them asks
# for them every 100 ms.
_INTERNAL = (
    '<Internal><SocketReceiveBufferSize min="default" max="10MB"/>'
    '<HeartbeatInterval min="2ms" minsched="2ms">5ms</HeartbeatInterval><AckDelay>1ms</AckDelay>'
    "<NackDelay>5ms</NackDelay></Internal>"
)
_MAX_PARTICIPANTS = 100

_domains: WeakValueDictionary[int, Domain] = WeakValueDictionary()


def domain_id(environment: Mapping[str, str] = os.environ) -> int:
    """The domain of ROS_DOMAIN_ID, 0 where it is not set.

    Raises:
        DiscoveryError: it is not a whole number in [0, 232].
    """
    text = environment.get("ROS_DOMAIN_ID", "").strip()
    if not text:
        return 0
    if not text.isdecimal() or int(text) > MAX_DOMAIN_ID:
        raise DiscoveryError(f"ROS_DOMAIN_ID is {text!r}; set a whole number from 0 to {MAX_DOMAIN_ID}")
    return int(text)


def discovery_range(environment: Mapping[str, str] = os.environ) -> str:
    """SUBNET (ROS 2's default), LOCALHOST, OFF or SYSTEM_DEFAULT.

    Raises:
        DiscoveryError: ROS_AUTOMATIC_DISCOVERY_RANGE is none of these.
    """
    if environment.get("ROS_LOCALHOST_ONLY", "").strip() == "1":
        return "LOCALHOST"
    text = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip().upper() or "SUBNET"
    if text not in _RANGES:
        raise DiscoveryError(f"ROS_AUTOMATIC_DISCOVERY_RANGE is {text!r}; set one of {', '.join(_RANGES)}")
    return text


def configuration(environment: Mapping[str, str] = os.environ) -> str | None:
    """Cyclone DDS's configuration, or None where CYCLONEDDS_URI or Cyclone's own defaults decide."""
    reach = discovery_range(environment)
    if environment.get("CYCLONEDDS_URI") or reach == "SYSTEM_DEFAULT":
        return None
    if reach == "OFF":
        general = "<General><AllowMulticast>false</AllowMulticast></General>"
        discovery = (
            f"<Discovery><ParticipantIndex>none</ParticipantIndex><Tag>ropes_off_{os.getpid()}</Tag></Discovery>"
        )
    else:
        peers = ["127.0.0.1", *filter(None, environment.get("ROS_STATIC_PEERS", "").split(";"))]
        listed = "".join(f'<Peer address="{escape(peer.strip())}"/>' for peer in peers)
        discovery = (
            f"<Discovery><ParticipantIndex>auto</ParticipantIndex>"
            f"<MaxAutoParticipantIndex>{_MAX_PARTICIPANTS - 1}</MaxAutoParticipantIndex>"
            f"<Peers>{listed}</Peers></Discovery>"
        )
        general = ""
        if reach == "LOCALHOST":
            interface = '<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>'
            if len(peers) > 1:  # static peers are reached through the machine's own interface
                interface = ""
            sizes = _LOOPBACK_SIZES if interface else ""
            general = f"<General>{interface}<AllowMulticast>false</AllowMulticast>{sizes}</General>"
    return f"<CycloneDDS><Domain>{general}{discovery}{_INTERNAL}</Domain></CycloneDDS>"


class Membership:
    """A process's participant on a domain, named as rmw names it, and the domain that it keeps alive."""

    def __init__(self, domain: int) -> None:
        config = configuration()
        self._domain: Domain | None = _domains.get(domain)
        try:
            if config is not None and self._domain is None:
                self._domain = _domains[domain] = Domain(domain, config)
            self.participant: Any = DomainParticipant(domain, qos=Qos(Policy.Userdata(b"enclave=/;")))
        except DDSException as error:
            self._domain = None
            raise DiscoveryError(
                f"cannot join DDS domain {domain} ({error}); check ROS_DOMAIN_ID, CYCLONEDDS_URI and that fewer than "
                f"{_MAX_PARTICIPANTS} ROS processes run on this machine"
            ) from None

    def close(self) -> None:
        """Leave the domain: the participant goes with all that was created through it."""
        # Entities are deleted by their destructor; calling it takes the participant down now, whoever still holds it.
        self.participant.__del__()
        self.participant = None
        self._domain = None
