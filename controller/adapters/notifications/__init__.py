"""Sends notifications: `sender` chooses, `http` posts to webhooks and chats, `smtp` mails.

What a receiver answers is never kept or shown: only its status is.
"""
