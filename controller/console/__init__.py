"""The pages that people use in a browser; a handler calls the services and fills a template.

`login`: log in and out, the second factor, the one-time code; `account`: one's own factors, sessions and tokens;
`routes`: all of them; `routing`: sessions, forms and errors; `rendering`: templates, static files and headers.
"""
