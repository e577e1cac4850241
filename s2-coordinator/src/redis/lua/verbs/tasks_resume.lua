-- tasks_resume <n> <name> <task> <token>: `waits` where the help is not there yet.
local function verb()
  local n, token = tonumber(ARGV[5]), tonumber(ARGV[8])
  open({ 'session:' .. ARGV[5], name_of(ARGV[7]) })
  begin_queues()
  local session, wrong = check_session(n, ARGV[6])
  if not session then
    return wrong
  end
  local rec = find_named(name_of(ARGV[7]))
  local its = rec and rec.number == n
  if its and rec.state == CLAIMED and token > 0 and rec.resumes == token then
    return { 'ok', { describe_grant(rec) } }
  elseif its and rec.state == BLOCKED and rec.token == token then
    watch(rec)
    return { 'waits', {} }
  elseif its and rec.token == token and (rec.state == RESUMABLE or rec.state == READY and has(rec, FLAG.blocker)) then
    return { 'ok', { describe_grant(grant(rec, session, token)) } }
  end
  return stale(rec)
end
