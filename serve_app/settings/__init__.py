"""All settings of the service, by topic: typed, frozen, unknown names refused."""
