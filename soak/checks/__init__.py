"""What a history is asked, by recipe. Pure: `soak.checker` puts it together."""
