"""`cordon broker`: nodes, drift, audit of settings, setup and ports of EMQX."""
