"""The SROS 2 policy allows each node what docs/interface.md says that it uses, and nothing else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ropes_ros.bag_format import TOPICS

ROOT = Path(__file__).resolve().parent.parent
NODES = ("sim_arm", "commander", "recorder", "estimator")
INTERFACE = (ROOT / "docs" / "interface.md").read_text(encoding="utf-8")
PARAMETERS = {
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
}
LIFECYCLE = {"change_state", "get_available_states", "get_available_transitions", "get_state", "get_transition_graph"}
ALWAYS = {"publish": {"/rosout", "/parameter_events", "/{node}/transition_event"}, "subscribe": {"/clock"}}
"""What rclpy itself uses in a lifecycle node, which the tables leave out."""


def section(title: str) -> str:
    """A section of the document, up to the next of the same rank; empty where there is none."""
    return re.split(r"^##", INTERFACE.partition(f"\n{title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def absolute(name: str, node: str) -> str:
    return f"/{node}{name[1:]}" if name.startswith("~") else name if name.startswith("/") else f"/{name}"


def allowed(path: str) -> dict[str, set[str]]:
    """Kind (publish, subscribe, request, reply) -> absolute names that an enclave's profile allows."""
    root = ElementTree.parse(ROOT / "config" / "sros2" / "policy.xml").getroot()
    (profile,) = root.findall(f"enclaves/enclave[@path='{path}']/profiles/profile")
    found: dict[str, set[str]] = {}
    for group in profile:
        (kind,) = group.attrib
        assert group.get(kind) == "ALLOW" and kind not in found
        names = [absolute(str(entry.text), str(profile.get("node"))) for entry in group]
        assert len(set(names)) == len(names) and not any("*" in name for name in names)
        found[kind] = set(names)
    return found


def documented_topics(node: str) -> dict[str, set[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section(f"### {node}").splitlines()]
    topics: dict[str, set[str]] = {"publish": set(), "subscribe": set()}
    for row in rows:
        if len(row) > 2 and row[2] in ("in", "out"):
            names = {absolute(name, node) for name in re.findall(r"`([^`]+)`", row[0])}
            topics["publish" if row[2] == "out" else "subscribe"] |= names
    if node == "recorder":  # its row names roles, and the parameter `extra_topics` says what is always recorded
        topics["subscribe"] |= {*TOPICS.values(), "/tf_static"}
    return topics


def documented_services(node: str) -> set[str]:
    return {name for name in re.findall(r"^\| `([^`]+)`", section("## Services"), re.MULTILINE) if f"/{node}/" in name}


def test_the_policy_is_of_the_form_that_sros2_reads() -> None:
    root = ElementTree.parse(ROOT / "config" / "sros2" / "policy.xml").getroot()
    assert root.tag == "policy" and root.attrib == {"version": "0.2.0"}
    paths = [enclave.get("path") for enclave in root.findall("enclaves/enclave")]
    assert paths == [f"/ropes/{name}" for name in (*NODES, "operator")]
    assert [profile.get("node") for profile in root.iter("profile")] == [*NODES, "operator"]
    assert {element.tag for element in root.iter("profile") for element in element} == {"topics", "services"}


@pytest.mark.parametrize("node", NODES)
def test_a_node_may_use_its_topics_and_no_others(node: str) -> None:
    policy, document = allowed(f"/ropes/{node}"), documented_topics(node)
    for kind, always in ALWAYS.items():
        wanted = document[kind] | {name.format(node=node) for name in always}
        assert policy[kind] == wanted


@pytest.mark.parametrize("node", NODES)
def test_a_node_may_answer_its_services_and_call_none(node: str) -> None:
    policy = allowed(f"/ropes/{node}")
    assert "request" not in policy
    inherited = {f"/{node}/{name}" for name in PARAMETERS | LIFECYCLE | {"get_type_description"}}
    assert policy["reply"] == inherited | documented_services(node)


def test_the_operator_may_call_what_the_nodes_answer_and_command_no_joint() -> None:
    operator = allowed("/ropes/operator")
    answered = set().union(*(allowed(f"/ropes/{node}")["reply"] for node in NODES))
    assert operator["request"] == {name for name in answered if not name.endswith("/get_type_description")}
    assert operator["publish"] == {"/parameter_events", "/rosout"}
    published = set().union(*(allowed(f"/ropes/{node}")["publish"] for node in NODES))
    assert operator["subscribe"] <= published


def test_the_document_of_security_names_every_enclave() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert all(f"`/ropes/{name}`" in text for name in (*NODES, "operator"))
