"""Models of the report's sections, grouped as the collectors: system, access, crypto, software, tools.

`installed` has the section `software`: targets installed by Cordon's updates.
"""
