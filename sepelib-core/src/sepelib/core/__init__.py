"""Configuration from Jinja2-templated YAML, constants and the root of the error tree."""
