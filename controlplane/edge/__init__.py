"""Input and output: AMI, MQTT, disk, configuration files, clocks, logs. Each client library is imported by one module."""
