"""The built-in simulator: a robot preset in MuJoCo under position control, seen by one camera."""
