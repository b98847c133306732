import subprocess
import sys

import pytest

from shardwright.quality.licences import find_licence, measure_licence

APACHE = """# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
"""
MIT = """/*!
 * Permission is hereby granted, free of charge, to any person obtaining
 * a copy of this software and associated documentation files (the
 * "Software"), to deal in the Software without restriction, including
 * without limitation the rights to use, copy, modify, merge, publish,
 * distribute, sublicense, and/or sell copies of the Software, and to
 * permit persons to whom the Software is furnished to do so, subject to
 * the following conditions:
 */
"""
BSD = """// Redistribution and use in source and binary forms, with or without
// modification, are permitted provided that the following conditions are
// met:
"""
ENDORSE = """// * Neither the name of the X nor the names of its contributors may be used to
// endorse or promote products derived from this software
"""
ADVERTISE = """// 3. All advertising materials mentioning features or use of this software
"""
ISC = """; Permission to use, copy, modify, and/or distribute this software for any
; purpose with or without fee is hereby granted, provided that the above
"""
ZERO = """Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted.
THE SOFTWARE IS PROVIDED "AS IS"
"""
GPL = """/* This program is free software; you can redistribute it and/or modify it under
 * the terms of the GNU {}General Public License as published by the Free Software
 * Foundation; either version {} of the License, or (at your option) any later version. */
"""
ONLY = """# This program is free software; you can redistribute it and/or modify
# it under the terms of the GNU General Public License version 2 as
# published by the Free Software Foundation.
"""
ZLIB = """  1. The origin of this software must not be misrepresented; you must not
     claim that you wrote the original software.
"""


@pytest.mark.parametrize(
    ("tag", "licence"),
    [
        ("// SPDX-License-Identifier: MIT", "MIT"),
        (
            "/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */",
            "GPL-2.0-only WITH Linux-syscall-note",
        ),
        ("# SPDX-License-Identifier: GPL-2.0+", "GPL-2.0-or-later"),
        ("<!-- SPDX-License-Identifier: apache-2.0 -->", "Apache-2.0"),
        ("SPDX-License-Identifier: (MIT OR Apache-2.0)", "Apache-2.0 OR MIT"),
        ("# spdx-license-identifier:BSD-3-Clause\r\n", "BSD-3-Clause"),
        ("# SPDX-License-Identifier: LicenseRef-Mine", "LicenseRef-Mine"),
        ("# SPDX-License-Identifier: MIT. See the file LICENSE", "MIT"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: ISC\n", "ISC AND MIT"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: MIT\n", "MIT"),
        ("# SPDX-License-Identifier: ISC\n" + APACHE, "ISC"),
        ("# SPDX-License-Identifier: Nonsense\n" + APACHE, "Apache-2.0"),
        ('x = "SPDX-License-Identifier: " + name', None),
        ("# SPDX-License-Identifier: {{ licence }}", None),
        ("\n" * 20000 + "# SPDX-License-Identifier: MIT", None),
    ],
)
def test_tags(tag, licence):
    assert find_licence(tag.encode()) == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (APACHE, "Apache-2.0"),
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        (BSD + ENDORSE, "BSD-3-Clause"),
        (BSD + ADVERTISE + ENDORSE, "BSD-4-Clause"),
        (ISC, "ISC"),
        (ZERO, "0BSD"),
        (GPL.format("", "2"), "GPL-2.0-or-later"),
        (GPL.format("", "3"), "GPL-3.0-or-later"),
        (GPL.format("Lesser ", "2.1"), "LGPL-2.1-or-later"),
        (GPL.format("Library ", "2"), "LGPL-2.0-or-later"),
        (GPL.format("Affero ", "3"), "AGPL-3.0-or-later"),
        (GPL.format("", "3").replace("\n", "\r\n"), "GPL-3.0-or-later"),
        (ONLY, "GPL-2.0-only"),
        ("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007\n", "GPL-3.0-only"),
        ("under version 2.1 of the GNU Lesser General Public License\n", "LGPL-2.1-only"),
        ("# distributed under the GNU General Public License\n", None),
        (
            GPL.format("", "3") + "/* part or all of the Bison parser skeleton */",
            "GPL-3.0-or-later WITH Bison-exception-2.2",
        ),
        ("* Mozilla Public\n * License, v. 2.0. If a copy", "MPL-2.0"),
        ("// This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("# https://creativecommons.org/publicdomain/zero/1.0/ license", "CC0-1.0"),
        ("// Boost Software License - Version 1.0 - August 17th, 2003", "BSL-1.0"),
        ("# Licensed to PSF under a Contributor Agreement.", "PSF-2.0"),
        (ZLIB, "Zlib"),
        (APACHE + MIT, "Apache-2.0 AND MIT"),
        (GPL.format("", "2") + MIT, "GPL-2.0-or-later AND MIT"),
    ],
)
def test_headers(text, licence):
    assert find_licence(text.encode()) == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# License: MIT\n", "MIT"),
        ("__license__ = 'Apache 2.0'\n", "Apache-2.0"),
        ("# License: BSD 3 clause\n", "BSD-3-Clause"),
        ('  "license": "ISC",\n', "ISC"),
        (" * @license Apache-2.0\n", "Apache-2.0"),
        (" * @license GPL v2 or later\n", "GPL-2.0-or-later"),
        (" * MIT Licensed\n", "MIT"),
        ("/*! normalize.css v8.0.1 | MIT License | github.com/necolas/normalize.css */", "MIT"),
        ("// Released under the MIT license\n", "MIT"),
        ("# under the terms of the 3-clause BSD License.\n", "BSD-3-Clause"),
        (
            "// Licensed under either of Apache License, Version 2.0 <LICENSE-APACHE> or the MIT\n"
            "// license <LICENSE-MIT>, at your option.\n",
            "Apache-2.0 OR MIT",
        ),
        ("// Dual-licensed under the MIT license and the GPL v2 license\n", "GPL-2.0-only OR MIT"),
        (
            "// Use of this source code is governed by a BSD-style\n// license that can be found in"
            " the LICENSE file.\n",
            "LicenseRef-BSD-style",
        ),
        ("// MIT-style license\n", "LicenseRef-MIT-style"),
        ("# see the LICENSE file\n", None),
        ("# License: see LICENSE\n", None),
        ("license = load_license(path)\n", None),
        ("# the submit license form comes under the mitten\n", None),
        ("# license text elsewhere" + "\n# filler" * 10 + "\n# grouped under MIT\n", None),
        ("x = 1\n", None),
        ("", None),
        ("\ufeff# License: MIT\n# \u00e9\n", "MIT"),
    ],
)
def test_names(text, licence):
    assert find_licence(text.encode()) == licence


def test_text_beyond_the_head_is_not_read():
    assert find_licence(b"x = 1\n" * 3000 + APACHE.encode()) is None
    assert find_licence(b"x = 1\n" * 1000 + APACHE.encode()) == "Apache-2.0"
    assert find_licence(b"x = 1\n" * 1000 + b"# License: MIT\n") is None


def test_other_scripts_stand_beside_a_licence():
    assert measure_licence("# Лицензия / License: MIT\n".encode(), None) == {"licence": None}
    assert measure_licence("# é\n# License: MIT\n".encode(), None) == {"licence": "MIT"}


def test_threads_share_the_parser() -> None:
    """The library builds its tokenizer at the first parse; another thread must not see half."""
    program = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import sys, threading\n"
        "from shardwright.quality.licences import find_licence\n"
        "sys.setswitchinterval(1e-6)\n"
        "start = threading.Barrier(8)\n"
        "def find(i):\n"
        "    start.wait()\n"
        "    return find_licence(f'# SPDX-License-Identifier: MIT OR Apache-2.0 {i}'.encode())\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    found = set(pool.map(find, range(8)))\n"
        "assert found == {'Apache-2.0 OR MIT'}, found\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
