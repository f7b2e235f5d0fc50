"""The store on SQLite: one writer thread, read-only readers, audit log as a hash chain.

- `store`: the port's implementation over `controller.adapters.sql`; `writer`: group commits; `reader`: the readers;
  `schema`, `migrations`: the tables; `statements`: what a commit writes.
- `audit_chain`: the ends of the chain. `restore`, `lock`, `errors`: restore of backups, the lock, error classes.
"""
