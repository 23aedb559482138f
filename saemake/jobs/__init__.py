"""The bodies of the rules, a module a stage, and what every job does around its work."""

from saemake.base import interrupts

# Before a script imports the modules that take seconds.
interrupts.say_in_one_line()
