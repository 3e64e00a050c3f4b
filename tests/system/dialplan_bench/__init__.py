"""Two real Asterisk sites and some SIPp, alone on a private network: the bench on which the dialplan kit is tested."""
