-- tasks_unblock <task>
local function verb()
  open({ id16(tonumber(ARGV[5])) })
  begin_queues()
  local rec = find_task(tonumber(ARGV[5]))
  if not rec then
    return { 'unknown_task', tonumber(ARGV[5]) }
  elseif rec.state ~= BLOCKED then
    return { 'ok', 0 }
  end
  drop_edges(rec)
  offer_resumption(rec)
  return { 'ok', 1 }
end
