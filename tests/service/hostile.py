"""Names and contents that mean harm, and one that is nearly another."""

HOSTILE = {
    "<script>alert(1)</script>.py": "x = '</script><script>document.title = \"run\"</script>'\n",
    'a" onmouseover="document.title=1.py': "y = '<img src=x onerror=\"document.title = 1\">'\n",
    "rtl\u202egnp.py": "# \u202e\u2066 turned \u2069\x07\x1b[31m\nz = 1\n",
    "new\nline.py": "w = '<svg onload=alert(1)>' + '{{ 7 * 7 }}' + \"{% raw %}\"\n",
    "javascript:alert(1).py": "v = 'data:text/html,<script>alert(1)</script>'\n",
    "long.py": "u = '" + "<b>" * 700_000 + "'\n",
}
NEAR = "near/copy.py"
