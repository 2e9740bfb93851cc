"""Every setting: what there is, where values come from, and what is wrong with one."""
