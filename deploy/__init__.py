"""What starts Tallystick: everything on one machine, and the configuration for more than one."""
