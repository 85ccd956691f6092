"""Tests of scale.py."""
import re
import unittest

import scale
from stack import ROOT


class Scale(unittest.TestCase):
    def test_every_place_of_a_duration_is_divided(self):
        text = "for: 1m\ninterval: 15s\nkeep_firing_for: 1h30m\nexpr: rate(x{a=\"b\"}[5m] offset 1m) > 3 and max_over_time(y[1h:30s])\n"
        scaled = "for: 4000ms\ninterval: 1000ms\nkeep_firing_for: 360000ms\nexpr: rate(x{a=\"b\"}[20000ms] offset 4000ms) > 3 and max_over_time(y[240000ms:2000ms])\n"
        self.assertEqual(scale.scale(text, 15), scaled)

    def test_zero_stays_zero_and_nothing_else_becomes_it(self):
        self.assertEqual(scale.scale("for: 0s\ngroup_wait: 1ms\n", 1000), "for: 0s\ngroup_wait: 1ms\n")

    def test_names_counts_prose_and_comments_stay(self):
        text = "# for 5m\nrecord: a:avg5m\nexpr: a:avg5m{l=\"b\"} > 14.4 * 0.001\nannotations:\n  description: >-\n    up for 5m\n  summary: 1h\n"
        self.assertEqual(scale.scale(text, 15), text)

    def test_a_duration_in_an_unknown_place_is_an_error(self):
        for line in ("limit: 5m", "expr: x @ 5m", "expr: |\n  5m"):
            with self.assertRaises(scale.ScaleError):
                scale.scale(line + "\n", 15)

    def test_the_shipped_files_differ_from_their_scaled_form_in_durations_only(self):
        for name in ("eternal.rules.yml", "comparison.rules.yml", "alertmanager.yml"):
            shipped = (ROOT / "alerts" / name).read_text()
            scaled = scale.scale(shipped, 15)

            def bare(text):
                kept = (line.split(" #")[0].rstrip() for line in text.splitlines())
                return [re.sub(rf"(?<![\w.]){scale.DURATION}(?!\w)", "T", line) for line in kept]

            self.assertEqual(bare(shipped), bare(scaled))
            self.assertGreater(sum(a != b for a, b in zip(shipped.splitlines(), scaled.splitlines(), strict=True)), 1, name)


def run():
    """Runs the tests; ends the program when one fails."""
    result = unittest.TextTestRunner(verbosity=0).run(unittest.defaultTestLoader.loadTestsFromTestCase(Scale))
    if not result.wasSuccessful():
        raise SystemExit(1)
