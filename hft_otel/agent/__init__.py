"""The agent: a process beside the trading process that reads its lanes and delivers (see docs/agent.md)."""
