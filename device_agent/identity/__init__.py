"""The device's certificate: enrol.py gets the first one, renewal.py renews it over MQTT.

store.py has the files of renewed pairs, credentials.py chooses the pair of each connection, keypair.py uses
cryptography, certificate_child.py does so in a child process.
"""
