"""What operators are told of without asking, pure: which audit lines, to whom, when, in which words.

- `model`: sinks with their rules, messages, threads, deliveries. `kinds`: which audit lines notify, and how urgently.
- `planning`: from an audit line to deliveries: rules, one thread for each case, deduplication, bursts, quiet hours.
- `texts`: words of a message, with hostile characters made harmless. `templates`: bodies for webhooks and chats.
- `retry`: when a failed delivery is tried again, and when it is given up.
"""
