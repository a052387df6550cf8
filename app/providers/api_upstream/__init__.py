"""What upstreams with an API have in common, whatever form that API has."""
