"""Where answers come from: the protocol that every upstream is brought to, and the upstreams."""
