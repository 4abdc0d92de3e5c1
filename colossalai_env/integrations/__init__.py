"""What other libraries need to be handed, one module for each; importing one patches nothing.

Most libraries need none of them: they see the group, or read the variables that ``init_from_env(export=True)`` sets.
"""
