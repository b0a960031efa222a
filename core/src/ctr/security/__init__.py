"""What confines a container: capabilities, seccomp, masked paths, devices, identity, limits.

Each module turns what was asked for into plain data; ``operations`` turns that data into
operations of the launch program.  Nothing here touches the machine beyond reading it.
"""
