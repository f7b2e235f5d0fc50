"""The part of the EMQX HTTP API that Cordon uses."""
