-- tasks_progress <task> <token>: renews a claim because of progress. Answers with its deadline.
local function verb()
  open({ name_of(ARGV[5]) })
  begin_queues()
  local rec = find_named(name_of(ARGV[5]))
  if not rec or not holds(rec, tonumber(ARGV[6])) then
    return stale(rec)
  end
  rec.progressed = now
  progress.moved()
  return { 'ok', renew(rec) }
end
