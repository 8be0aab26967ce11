"""What is measured, on the same code as the door; nothing here runs at one.

How often it errs, in the order of the text: `dataset` (photographs of people), `embeddings` (what the lens
sees in them), `comparisons` (scores), `error_rates` and `intervals` (rates), `report/` (for people), and
`calibration` (thresholds, from all of these). `study` and `labelled_pairs`
put them together for `drempel evaluate`; `trials` and its `trial_*` try other ways to recognise.

How fast it is: `bench/`.
"""
