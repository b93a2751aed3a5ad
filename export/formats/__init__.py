"""One export format a file: `convert(twin, staging, options)`. Loading lives in runtimes/."""
