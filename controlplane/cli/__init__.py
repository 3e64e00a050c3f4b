"""The command line `controlplane`: tables for people, JSON for programs. Holds no rule of its own."""
