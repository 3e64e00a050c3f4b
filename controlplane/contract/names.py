"""The forms that names may have. A name goes into AstDB keys, dialplan variables, SIP headers and MQTT topics.

Each pattern ends in `$(?!\\n)`: a bare `$` also matches before a line feed at the end, and that is a new AMI header.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec

#: A site, service, trunk, group, host or agent: lower case letters, digits, underscore and hyphen.
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$(?!\n)")]
#: A dialled number as the carrier delivers it.
Number = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{2,20}$(?!\n)")]
#: The first digits of dialled numbers.
Prefix = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}$(?!\n)")]
#: A moment, always with its zone: two moments can then be compared wherever they were made.
Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]
#: The largest whole number that every JSON reader holds exactly.
MOST_COUNT = 2**53 - 1
#: A number that only counts: an epoch, a revision, a sequence, milliseconds of a clock.
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNT)]
#: A share in whole percent.
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
#: Free text by a person: bounded, printable where it is shown.
Text = Annotated[str, msgspec.Meta(max_length=500)]
#: What a person is called, in any script.
PersonName = Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]
#: Lower case hexadecimal MD5 of `user:realm:password`: a digest credential (RFC 2617), never the password.
Md5Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
#: The realm of digest authentication on every site ([global] default_realm in pjsip.conf); part of each digest.
REALM = "controlplane"
