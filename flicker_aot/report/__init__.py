"""What a run found and did. In: values of other stages. Out: report values, JSON, text and tables (rich only here)."""
