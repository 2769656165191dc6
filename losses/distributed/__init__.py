"""What a loss may ask of other replicas and hosts: their examples, their count."""
