"""The HTTP surface: schemas, routes and error bodies. Knows neither Ray nor torch."""
