"""The store on PostgreSQL 15 to 18: one writer thread that a row fences, readers, audit log as a hash chain.

- `store`: the port's implementation over `controller.adapters.sql`; `writer`: group commits; `reader`: the readers.
- `address`, `connection`, `errors`: the URL, connections with their time limits, error classes.
- `schema`, `migrations`: the tables. `registration`: who writes. `statements`: what a commit
  writes. `audit_chain`: the ends of the chain.
"""
