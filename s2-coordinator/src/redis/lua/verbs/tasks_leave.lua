-- tasks_leave <n>: a session leaves. Answers whether it was there.
local function verb()
  open({ 'session:' .. ARGV[5] })
  begin_queues()
  local session = find_session(tonumber(ARGV[5]))
  if session then
    leave_fleet(session)
  end
  return { 'ok', session and 1 or 0 }
end
