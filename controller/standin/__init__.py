"""A stand-in for EMQX with the parts of its MQTT and HTTP interface that Cordon uses, for demonstrations and tests.

It imports nothing of the controller.
"""
