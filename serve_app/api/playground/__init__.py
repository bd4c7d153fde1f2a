"""The playground: the page that people see at the service's address."""
