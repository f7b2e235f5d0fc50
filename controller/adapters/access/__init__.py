"""Access templates in YAML files; `templates` reads and checks them."""
