"""The lab: two real Asterisk sites, their daemons, a broker and the world around them, in containers of this machine.

Everything it makes is named after the checkout, uses private networks only, and is taken away again, also after a run
that crashed. It knows how to build and start things, never what the control plane should do.
"""
