"""What decisions need from outside: protocols, values and errors; controller.adapters implements them.

- `store`, `messages`, `broker`: the store, MQTT, and containment at the broker. `errors`: the error classes.
- `broker_tables`: rows of the broker's tables, rules of a restriction. `broker_setup`, `inspection`: its settings.
- `certificates`, `device_keys`, `updates`, `rollouts`, `policies`, `access`: one protocol each.
- `clock`, `log`: time and ids, and the type of the logging function.
"""
