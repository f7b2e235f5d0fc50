"""The device's certificate: `enrol` gets the first one, `renewal` renews it over MQTT.

`store` has the files of renewed pairs, `credentials` chooses the pair of each connection, `keypair` uses
cryptography, `certificate_child` does so in a child process.
"""
