"""Keys, certificates and the TLS library.

`keys` recognises private keys by `key_format` and `key_asn1`; `certificates` checks them with `certificate_chain`,
`revocation` (CRLs) and `ocsp`. `crypto_files` finds the files of both, `fetch` makes their HTTP requests. `openssl`
collects the library's version and state with `openssl_config` and `tls_errors`.
"""
