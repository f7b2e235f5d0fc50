"""Access rules of a fleet as an operator writes them."""

from typing import Final

TEMPLATES: Final = """
access: fleet
version: 1
templates:
  - class: "*"
    title: Every device
    rules:
      - {allow: publish, topic: "fleet/${clientid}/#"}
"""
