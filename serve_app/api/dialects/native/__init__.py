"""The service's own routes and schemas: strict, with errors that name the field."""
