"""Starting and stopping a service on this machine: command line, ports, clean-up."""
