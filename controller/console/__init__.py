"""The pages that people use in a browser; a handler calls the services and fills a template.

`login`: log in and out, the second factor, the one-time code; `sso`: by way of a provider; `account`: factors, sessions
and tokens of one's own; `routes`: all of them; `routing`: sessions, forms and errors; `rendering`: templates, static
files and headers.
"""
