"""The registry: who a person is, what they agreed to, and which handle and badges are theirs."""
