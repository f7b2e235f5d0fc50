"""`cordon policy`: checks, lists, previews and explains policies."""
