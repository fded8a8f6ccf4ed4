"""The `ktrdr` command, a client like any other.

Light modules (`app`, `commands`, `options`, `dates`, `durations`, `failures`,
`pace`) declare what can be typed; they import typer and nothing heavier, so that
`--help` and completion stay quick. The others do the work and are imported by a
command when it runs.
"""
