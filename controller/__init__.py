"""The controller: evaluates devices by policies, contains them at the broker, repairs and updates them.

Imports run one way: `domain` <- `ports` <- `adapters` <- `service` <- `api` <- `app` <- `demo` <- `cli`.

- `domain`: every decision, pure. `ports`: what decisions need from outside. `adapters`: one technology each.
- `service`: loops and use cases. `api`: the HTTP API. `app`: builds and runs a controller. `cli`: the cordon command.
- `packs`: shipped policies. `standin`: a stand-in for EMQX. `demo`: demonstrations.
"""
