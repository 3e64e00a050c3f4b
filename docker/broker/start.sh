#!/bin/sh
# Turns the mounted plain accounts (name:password lines, readable by root only) into mosquitto's password file, so that
# the hashes are always of the kind this mosquitto understands, then becomes the broker.
set -eu
install -d -o mosquitto -g mosquitto -m 700 /run/broker /var/lib/mosquitto
install -m 600 /etc/broker/accounts /run/broker/passwords
mosquitto_passwd -U /run/broker/passwords
install -m 600 /etc/broker/acl /run/broker/acl
chown mosquitto:mosquitto /run/broker/passwords /run/broker/acl
exec mosquitto -c /etc/broker/mosquitto.conf
